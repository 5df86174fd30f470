import numpy as np

from scoregeo.fisher_rao import Gamma

random = np.random.default_rng(0)
first = Gamma().fit(random.gamma(2.0, 3.0, size=2000))
second = Gamma().fit(random.gamma(4.0, 1.5, size=2000))
print(*first, *second, Gamma().dist(first, second))
for shape, rate in Gamma().geodesic(first, second, (0.0, 0.5, 1.0)).points:
    print(shape, rate)
