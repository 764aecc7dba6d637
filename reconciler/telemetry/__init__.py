"""What others see of a run: log records, later metrics and endpoints. Listeners only.

Values flow in, text flows out; nothing here is ever asked for an answer.
"""
