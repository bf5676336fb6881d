"""Where documents live: one protocol, several engines; the only importer of tinydb."""
