"""Figures; thin, they draw what the other rooms return and hold no mathematics."""
