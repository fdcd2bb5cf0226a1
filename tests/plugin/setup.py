from setuptools import setup

setup(
    name="jets25",
    version="1.0",
    packages=["jets25"],
    install_requires=["hpcgan"],
    entry_points={
        "hpcgan.problems": ["jets25 = jets25.problem:Jets25Problem"],
        "hpcgan.methods": ["moments = jets25.settings:MomentsSettings"],
    },
)
