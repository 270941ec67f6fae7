"""Uploads that mean harm, made by code: the same bytes in every run, and no file of anybody's."""
