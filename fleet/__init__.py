"""The shared base: what a site, power, a profile and a plan are, and the contract between services.

Rule: nothing here imports a service. The pure modules (records, keys, intake, power, profile, instance,
request) know no clock, network or log; `store`, `config` and `log` are the edge.
"""
