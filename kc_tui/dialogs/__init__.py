"""Questions and answers over a screen; Esc always leads out."""
