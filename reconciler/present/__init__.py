"""The one place where values become text: words, table rows, the stable JSON shapes, HTML. Pure.

Values of model and decide flow in, text flows out: to the log, the live view, `status`, the page,
`replay`, its report and `explain`. Nothing here asks, counts, writes or decides.
"""
