"""Labels: what is known of them, a bundle's own and its pod's where they say nothing. Pure.

containerd's CRI writes pod, container and sandbox into each config.json of a pod. Where one of them
is missing it is not known; that it is empty is known only of who is in no pod. An annotation of
somebody's own is missing in most, and that is known wherever config.json can be read and no pod
could have it in its place. "Not known" is never a no: a rule that protects then applies.
"""

from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec

from reconciler.model.evidence import NO_LABELS, Answer, Labels

PodLabel = Literal["pod_namespace", "pod"]

_FITS: Final = {True: Answer.YES, False: Answer.NO}


def joined(newer: Labels, older: Labels) -> Labels:
    """Give the newer labels of one object, with what only the older ones knew.

    Nobody takes a label away; what can no longer be read was true all the same.
    """
    if older is NO_LABELS or newer == older:
        return newer
    merged = Labels(
        known=newer.known or older.known,
        pod_namespace=newer.pod_namespace or older.pod_namespace,
        pod=newer.pod or older.pod,
        container=newer.container or older.container,
        sandbox=newer.sandbox or older.sandbox,
        annotations=tuple(sorted((dict(older.annotations) | dict(newer.annotations)).items())),
    )
    return newer if merged == newer else merged


def doubted(labels: Labels) -> Labels:
    """Give the same labels, read when not all was asked for: what is missing is not known."""
    return msgspec.structs.replace(labels, known=False) if labels.known else labels


class Known(msgspec.Struct, frozen=True):
    """What can be known of one bundle's labels.

    Attributes:
        own: Its own.
        pod: Its pod's sandbox's, if it is another bundle and they are known.
        is_sandbox: It is its pod's sandbox itself.
    """

    own: Labels
    pod: Labels = NO_LABELS
    is_sandbox: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether nobody else could say more."""
        own = self.own
        return own.known and (self.is_sandbox or not self._is_in_pod)

    @property
    def _is_in_pod(self) -> bool:
        own = self.own
        return bool(own.sandbox or own.pod_namespace or own.pod or own.container)

    def fits_pod(self, name: PodLabel, glob: str | None) -> Answer:
        """Return whether a label that all containers of a pod have in common fits."""
        if glob is None:
            return Answer.YES
        own: str = getattr(self.own, name)
        if own or (self.own.known and not self._is_in_pod):
            return _FITS[fnmatchcase(own, glob)]
        inherited: str = getattr(self.pod, name)
        return _FITS[fnmatchcase(inherited, glob)] if inherited else Answer.NONE

    def fits_container(self, glob: str | None) -> Answer:
        """Return whether the container's name fits; a sandbox has none."""
        if glob is None:
            return Answer.YES
        if self.own.container or self.is_complete:
            return _FITS[fnmatchcase(self.own.container, glob)]
        return Answer.NONE

    def fits_annotation(self, name: str, glob: str) -> Answer:
        """Return whether an annotation fits; one that only its pod has might be meant, too."""
        own = dict(self.own.annotations)
        if name in own:
            return _FITS[fnmatchcase(own[name], glob)]
        if self.is_complete:
            return Answer.NO
        if not (self.own.known and self.pod.known):
            return Answer.NONE
        inherited = dict(self.pod.annotations)
        fits = name in inherited and fnmatchcase(inherited[name], glob)
        return Answer.NONE if fits else Answer.NO
