"""Run directories: trained, evaluated, ablated, and taken up again."""
