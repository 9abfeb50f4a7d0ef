"""Packaging of frcnn."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="frcnn",
    version="0.1.0",
    description="Faster R-CNN that can be taken apart and put together differently",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.15",
    packages=find_packages(include=["frcnn", "frcnn.*"]),
    package_data={"frcnn.cli": ["templates/*.txt"]},
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "numpy>=2.0",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.10",
        "pycocotools>=2.0.8",
        "opencv-python>=4.10",
        "pyyaml>=6.0",
        "msgspec>=0.19",
        "hotcoco>=1.3",
        "scipy>=1.11",  # linear_sum_assignment, of the Hungarian matcher
    ],
    extras_require={
        "tensorboard": ["tensorboard>=2.17"],
        "submitit": ["submitit>=1.5"],
        "ray": ["ray>=2.40"],
        "timm": ["timm>=1.0"],
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.11",
            "types-PyYAML",
            "tensorboard>=2.17",
            "submitit>=1.5",
            "timm>=1.0",
        ],
    },
    entry_points={"console_scripts": ["frcnn = frcnn.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
    ],
)
