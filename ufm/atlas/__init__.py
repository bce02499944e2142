"""The theorems as executable, certified checks."""
