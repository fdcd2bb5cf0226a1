"""Adam with its state in plain variables, which a checkpoint saves and a broadcast overwrites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from hpcgan.config import AdamConfig


class Adam:
    """Adam (Kingma and Ba, arXiv:1412.6980, section 2, efficient form) for a fixed list of variables.

    Parameters
    ----------
    name : str
        Prefix of the state's variables.
    variables : mapping of str to tf.Variable
        What `apply` changes, by name.
    config : AdamConfig
        Its learning rate is not used: `apply` gets the scheduled one.
    """

    def __init__(self, name: str, variables: Mapping[str, tf.Variable], config: AdamConfig) -> None:
        self._variables = list(variables.values())
        self._config = config
        dtype = self._variables[0].dtype
        self._first = [tf.Variable(tf.zeros_like(v), name=f"{name}/m/{k}") for k, v in variables.items()]
        self._second = [tf.Variable(tf.zeros_like(v), name=f"{name}/v/{k}") for k, v in variables.items()]
        # Powers of the decay rates rather than a step count: what the kernel takes.
        self._power1 = tf.Variable(config.beta1, dtype=dtype, name=f"{name}/beta1_power")
        self._power2 = tf.Variable(config.beta2, dtype=dtype, name=f"{name}/beta2_power")

    def apply(self, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor) -> None:
        """One update."""
        dtype = self._power1.dtype
        beta1, beta2, epsilon = (
            tf.constant(x, dtype) for x in (self._config.beta1, self._config.beta2, self._config.epsilon)
        )
        power1, power2 = self._power1.read_value(), self._power2.read_value()
        for variable, m, v, gradient in zip(self._variables, self._first, self._second, gradients, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=power1,
                beta2_power=power2,
                lr=learning_rate,
                beta1=beta1,
                beta2=beta2,
                epsilon=epsilon,
                grad=gradient,
            )
        self._power1.assign(power1 * beta1)
        self._power2.assign(power2 * beta2)

    @property
    def named(self) -> dict[str, tf.Variable]:
        """State variables by name."""
        return {v.name.removesuffix(":0"): v for v in (*self._first, *self._second, self._power1, self._power2)}
