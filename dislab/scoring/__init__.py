"""From a trained model to scores: the code table, and what metrics share."""
