"""Studies: which models x datasets x hyper-parameters x seeds x metrics, run and reported as a whole.

A study is a TOML file: one shipped in benchmarks/, known by its name, or a user's own.

    title = "How beta trades reconstruction for disentanglement"
    protocol = "quick"                  # steps, batch_size, precision, metrics, …: as for `dislab run`
    seeds = [0, 1, 2]
    rank_by = "mig"
    figures = ["scores_by_model"]       # names of FIGURES, "pictures" of the runs; by default all

    [[runs]]                            # may be repeated, with protocol, steps, … of its own
    model = ["betavae", "betatcvae"]
    dataset = "shapes3d"                # a list of datasets is run one after the other
    group_by = ["object_hue"]           # group_by, hold_out, source, factors: as for `dislab.run`
    optional = true                     # left out with a line where its official files are missing
    set = { beta = [1, 4, 16] }         # a list is swept; of several lists, all combinations

The study is checked as a whole before anything trains. Its state is that of its results folder: a run that is
finished there is not done again, and one that was interrupted goes on from its checkpoint.
"""
