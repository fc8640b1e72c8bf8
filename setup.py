# SPDX-License-Identifier: Apache-2.0
"""Package metadata: bounds as tested together (requirements.lock has the exact versions).

The project is used from its checkout (README): its packages have short names, such as `lib`, which
would collide with those of other projects in one environment.
"""

import pathlib

import setuptools

setuptools.setup(
  name='anytoken',
  version='0.1.0',
  description='A JAX/Flax research codebase for tokenization: text to symbols to vectors and back.',
  long_description=pathlib.Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  keywords=['tokenization', 'language models', 'embeddings', 'JAX', 'Flax'],
  classifiers=[
    'Intended Audience :: Science/Research',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
    'Topic :: Text Processing :: Linguistic',
  ],
  python_requires='>=3.11',
  packages=setuptools.find_packages(
    include=['lib*', 'experiments*', 'configs*', 'pallas_kernels*']
  ),
  package_data={
    'lib.report': ['published/*.json', 'claims/*.json', 'corrections.json', 'page.css']
  },
  install_requires=[
    'absl-py>=2.3,<3',
    'array_record>=0.8.1,<0.9',
    'confusable-homoglyphs>=3.3.1,<4',  # Unicode's confusables (UTS 39), MIT
    'etils>=1.12,<2',
    'flax>=0.12.8,<0.13',
    'fonttools>=4.55,<5',
    'fsspec>=2025.3,<2027',
    'grain>=0.2.18,<0.3',
    'highspy>=1.11,<1.15',  # from 1.15 on each process prints HiGHS's name
    'importlib_resources>=6,<8',  # tensorflow-datasets imports it without declaring it
    'jax>=0.10.2,<0.13',
    'jaxlib>=0.10.2,<0.13',
    'llvmlite>=0.46,<0.51',
    'matplotlib>=3.10,<4',
    'ml_collections>=1.1,<2',
    'numba>=0.63,<0.69',
    'numpy>=2.1,<2.6',
    'optax>=0.2.8,<0.3',
    'orbax-checkpoint>=0.12.8,<0.13',
    'pillow>=12,<14',
    'safetensors>=0.7,<0.9',
    'scipy>=1.15,<2',
    'sentencepiece>=0.2.3,<0.3',
    'tensorboardX>=2.6.4,<3',
    'tensorflow-datasets>=4.9.10,<5',  # 4.9.9 fails with protobuf 7
    'tokenizers>=0.22,<0.24',
    'tqdm>=4.67,<5',
  ],
  extras_require={
    'tpu': ['jax[tpu]>=0.10.2,<0.13'],
    'cuda': ['jax[cuda13]>=0.10.2,<0.13'],
    'beam': ['apache-beam>=2.70,<3'],
    'gcs': ['gcsfs>=2025.3'],
    'dev': [
      'constriction>=0.5,<0.6',  # what the coder is held against
      'hypothesis>=6.150,<7',
      'mypy>=2,<3',
      'pytest>=9,<10',
      'pytest-xdist>=3.8,<4',
      'ruff>=0.17,<0.18',
      'tensorboard>=2.20,<3',
      'tiktoken>=0.12,<0.15',  # what BPE is timed against
    ],
  },
)
