"""What watches a run: scores, pictures, predictions, the moving average."""
