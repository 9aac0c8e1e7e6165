"""Tools that people use for evaluations already, with llmbatch's engine, resume and accounting beneath them; a file for each."""
