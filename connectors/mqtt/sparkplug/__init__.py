"""Sparkplug B (Eclipse Sparkplug 3.0) over MQTT: from its messages to typed frames.

`sparkplug_b_pb2` is compiled from the definition that Eclipse Tahu publishes; nothing of a payload is
parsed by hand.
"""
