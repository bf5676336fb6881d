"""From a request to a decision: who asks, and what they may do.

KC hands the question over. `protocol.py` is what is asked and answered, `chain.py` who is asked in which order, one
module each an authenticator, `guarded.py` what holds a service to a decision.
"""
