"""The napari plugin: slides, stores and runs as layers. The only package that imports napari."""
