"""The Service protocol spoken over HTTP to a `kc serve`; needs neither libvirt nor a store."""
