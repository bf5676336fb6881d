"""From settings to a service."""

from __future__ import annotations

from backend.errors import RefusedError
from backend.local.service import LocalService
from backend.settings import Settings


def open_service(settings: Settings, *, operate: bool = True) -> LocalService:
    """Return the service that the settings ask for; nothing is opened on a host before it is needed.

    Without `operate`, operations are only written down, for another process to do. Raises RefusedError for a remote
    instance, which this version does not speak to.
    """
    if settings.url:
        raise RefusedError(
            f"profile {settings.profile}", "this version speaks to no remote instance", "unset KC_URL, or use local"
        )
    from backend.hypervisor.host import open_hypervisor  # noqa: PLC0415 - so that a remote KC needs no libvirt
    from backend.store.opening import open_store  # noqa: PLC0415

    store = open_store(settings.store_url, retentions=settings.retentions, etcd=settings.etcd)
    hypervisor = open_hypervisor(settings.libvirt_uri, settings.pool, settings.paths.cache)
    return LocalService(store, hypervisor, settings, operate=operate)
