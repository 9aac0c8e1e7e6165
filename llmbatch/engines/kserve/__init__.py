"""Triton and any other server of the V2 (open inference) protocol, and Triton's generate endpoint: no model is loaded here."""
