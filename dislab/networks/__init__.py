"""Networks in plain torch, the distributions of codes and pixels, and what makes both fast."""
