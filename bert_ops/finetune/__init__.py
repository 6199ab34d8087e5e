"""Tasks: tuning a pretrained encoder, and the baselines that it must beat."""
