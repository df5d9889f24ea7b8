"""How predictions are made at test time, and how good they are: metrics and the evaluator."""
