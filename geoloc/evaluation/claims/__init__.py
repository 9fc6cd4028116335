"""The papers' findings as testable claims: what they compare, who plays each role, the list of them."""
