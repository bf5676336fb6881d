"""The serial console's emulator and key table; nothing in here imports Textual."""
