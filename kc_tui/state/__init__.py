"""View state as plain values and functions; nothing in here imports Textual."""
