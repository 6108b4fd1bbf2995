"""The journal: what the rows can be rebuilt from, should the database be lost."""
