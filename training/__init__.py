"""How a model learns: loop, optimizer, saved state, what rows are taught. Imports experiment."""
