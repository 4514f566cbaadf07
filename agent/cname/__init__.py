"""Keeping CNAMEs that point at services' Consul DNS names: observe → plan → apply, one file per DNS provider."""
