# SPDX-License-Identifier: Apache-2.0
"""One mesh, and the place of every array on it, as modules declare it (`lib.parameters`)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from lib.errors import InputError
from lib.parallel.mesh import AXES, BATCH_AXES, batch_devices
from lib.parameters import Declaration, path_name

Declared = Mapping[str, Declaration]  # by the path of a variable


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh with axes data, fsdp and tensor.

  Args:
    sizes: devices along each axis; at most one is −1 and takes what is left.
    devices: all devices where None.

  Raises:
    InputError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  shape = [int(sizes.get(axis, 1)) for axis in AXES]
  unknown = set(sizes) - set(AXES)
  fixed = math.prod(size for size in shape if size != -1)
  if unknown or min(shape) < -1 or 0 in shape or shape.count(-1) > 1 or len(devices) % fixed:
    raise InputError(
      f'mesh {dict(sizes)} does not fit {len(devices)} devices: give the axes {", ".join(AXES)} '
      'sizes that multiply to that number, one of them −1 for "the rest".'
    )
  shape = [len(devices) // fixed if size == -1 else size for size in shape]
  if math.prod(shape) != len(devices):
    raise InputError(
      f'mesh {dict(sizes)} takes {math.prod(shape)} devices of {len(devices)}: make one axis −1.'
    )
  return Mesh(arrange(shape, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def independent_devices(devices: Sequence[jax.Device]) -> Mesh:
  """The mesh on which each device trains a model of its own: any devices, along `data`.

  `make_mesh` takes whole slices of TPUs alone.
  """
  shape = len(devices), *(1,) * (len(AXES) - 1)
  return Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def arrange(shape: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
  """Devices as an array of a shape, neighbours in it near each other on the network of TPUs.

  Slices are placed along `data`, so that only gradients cross the network between slices.

  Raises:
    InputError: `data` is not a multiple of the number of slices.
  """
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if slices == 1:
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
  if shape[0] % slices:
    raise InputError(f'the data axis of {shape[0]} does not divide among {slices} slices.')
  within = (shape[0] // slices, *shape[1:])
  return mesh_utils.create_hybrid_device_mesh(
    within, (slices, 1, 1), devices, allow_split_physical_axes=True
  )


def fit(spec: PartitionSpec, shape: Sequence[int], mesh: Mesh) -> NamedSharding:
  """The spec on this mesh, less any axis whose size does not divide the array's dimension.

  Specs are aligned to the last dimensions, so one serves a layer and a scanned stack of them.
  An array of lower rank than the spec (a scalar, a factored moment) is replicated.
  """
  if len(spec) > len(shape):
    return NamedSharding(mesh, PartitionSpec())
  aligned = (None,) * (len(shape) - len(spec)) + tuple(spec)
  size = lambda axes: math.prod(
    mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes)
  )
  kept = [axes if axes and dim % size(axes) == 0 else None for axes, dim in zip(aligned, shape)]
  return NamedSharding(mesh, PartitionSpec(*kept))


def shardings(variables: Any, declared: Declared, mesh: Mesh) -> Any:
  """A tree of NamedShardings for variables (arrays or shapes); undeclared ones are replicated."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: _place(declared.get(path_name(path), Declaration()), leaf, mesh), variables
  )


def moment_shardings(moments: Any, declared: Declared, mesh: Mesh) -> Any:
  """Shardings of an optimizer's state: an array is sharded as the parameter whose path its path
  ends
  with."""

  def place(path: tuple, leaf: Any) -> NamedSharding:
    ends = (f'params/{path_name(path[start:])}' for start in range(len(path)))
    found = (declared[end] for end in ends if end in declared)
    return _place(next(found, Declaration()), leaf, mesh)

  return jax.tree_util.tree_map_with_path(place, moments)


def _place(declaration: Declaration, leaf: Any, mesh: Mesh) -> NamedSharding:
  return fit(PartitionSpec(*declaration.axes), leaf.shape, mesh)


def put(array: Any, place: Sharding) -> jax.Array:
  """An array that every process has in full, or a jax array, on the devices of `place`."""
  if isinstance(array, jax.Array):
    return jax.device_put(array, place)
  array = np.asarray(array)
  return jax.make_array_from_callback(array.shape, place, array.__getitem__)


def global_batch(
  batch: Mapping[str, np.ndarray], mesh: Mesh, axis: int = 0
) -> dict[str, jax.Array]:
  """A batch, which every process has in full, as global arrays: `axis` split over data and fsdp.

  Raises:
    InputError: the batch does not divide over those devices.
  """
  places = batch_shardings(batch, mesh, axis)
  return {name: put(np.asarray(whole), places[name]) for name, whole in batch.items()}


def batch_shardings(batch: Mapping[str, Any], mesh: Mesh, axis: int) -> dict[str, NamedSharding]:
  """Where `global_batch` puts each array (or shape) of a batch."""
  devices = batch_devices(mesh)

  def place(shape: Sequence[int]) -> NamedSharding:
    if shape[axis] % devices:
      raise InputError(
        f'a batch of {shape[axis]} does not divide among the {devices} devices along data and '
        f'fsdp: choose a multiple of {devices}, or another mesh.'
      )
    spec = PartitionSpec(*(BATCH_AXES if i == axis else None for i in range(len(shape))))
    return NamedSharding(mesh, spec)

  return {name: place(array.shape) for name, array in batch.items()}
