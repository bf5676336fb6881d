"""Wizards: one package module a page."""
