"""Measure the speed of dislab beside what a user would run instead: one script per part.

All tables have the column "machine": device, threads and versions.

speed.csv, a line for each thing that was measured, has these columns; WAY is "usual" (see `ways.Usual`), or
"dislab" with a precision:

- what: "training" and "encoding", of each model on each dataset; "training N models", as `--seeds` does: in
  processes on a CPU, side by side (streams of one CUDA graph) on a GPU; "metric";
  "command", a phase of `dislab run` but training.
- of: the model, the metric or the phase.
- dataset: its name, or the number of rows that a metric scored.
- unit: of the columns of the ways: steps/s, images/s, seconds, or CPU seconds.
- WAY: the median of the readings. For a metric "usual" is the time to encode images anew, as
  disentanglement_lib does; see `metrics`.
- WAY / usual: how many times faster than the usual way: the median of the ratios of readings that follow
  each other.
- WAY, share of peak: FLOP/s of the products and convolutions, over those of a large matrix product in the
  same precision on this device.
- WAY, CPU ms: CPU milliseconds per training step, with one thread on a CPU only; steadier than the seconds
  where others use the machine.
- encoding / training, images: images/s encoded over images/s trained on, in dislab's first column.
- encoding / training, FLOP: the same of FLOP/s.

cost.csv, a line for each measurement of dislab's VAE in batches of 32 Shapes3D images:

- against: what was varied: steps, models side by side, images of the dataset, latents; or
  "dataset", where batches of 64 are drawn from each dataset.
- value: its value.
- seconds: of all steps of a reading, the median of three.
- ms_per_step: milliseconds per step; one of several models is a step of all of them.
- peak_mb: peak memory in MB: of the processes, or of the tensors on a GPU.

losses.csv: way; seed; step; loss, the mean in nats per image over the steps since the line before.

peers.csv, a line for each model and way, of 64 Shapes3D images per step; see `peers` for what is counted:

- model: dislab's name of it.
- way: "usual", "dislab" with its precision, or another library with its version.
- class: the model in dislab or in that library.
- network: the encoder and decoder.
- steps/s: training steps per second, the median of the readings.
- time / OURS: time of a step over that of dislab: the median of the ratios of readings that follow each
  other.
- GFLOP per step: of the products and convolutions, in units of 1e9.
- time per FLOP / OURS: the ratio of the times of a step, each divided by its FLOP.
- CPU ms per step: as in speed.csv.
"""
