"""How good recommendations are: metrics, baselines, slices, and what each stage contributes."""
