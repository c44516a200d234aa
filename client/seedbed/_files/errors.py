"""What can be wrong with a file."""


class FileFormatError(ValueError):
    """A file is not, or cannot be, what its name says."""


class FileSizeError(FileFormatError):
    """A safetensors file is shorter or longer than its header says."""
