"""How sure an answer is: temperatures, conformal regions, abstention."""
