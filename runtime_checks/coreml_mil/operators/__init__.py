"""The operations of ML Programs: one file a family, found by importing this package."""
