"""`joulegate accuracy`: each model's share of right answers, from files or a graded run."""
