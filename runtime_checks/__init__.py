"""Bundle in, verdict, figures and pictures out."""
