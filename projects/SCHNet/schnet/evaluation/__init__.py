"""How good a parsing is: confusion matrix, metrics, and the evaluator that streams a split."""
