"""The path of a request: `call/pipeline` has its six steps, and `app` puts the process together.

A worker knows what the blueprint and live policy say, and decides nothing beyond them; no step awaits a database but
where workloads with sources read live permissions, or a slice of a budget is empty.
"""
