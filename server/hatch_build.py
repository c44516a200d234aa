"""Pins the client to the version that is being built, which pyproject.toml cannot express."""

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class PinnedClient(MetadataHookInterface):
    """Fills ``{version}`` into the dependencies of ``[tool.hatch.metadata.hooks.custom]``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets the dependencies."""
        dependencies = self.config["dependencies"]
        metadata["dependencies"] = [text.replace("{version}", metadata["version"]) for text in dependencies]
