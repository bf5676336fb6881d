"""Documents: their shape, validation, parameters, selectors and differences. Pure; no input or output."""
