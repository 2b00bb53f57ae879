"""The person in a portrait by colour, place and shape: GrabCut with a head-and-shoulders prior.

At low resolution, expectation-maximisation joins a shape prior (silhouettes, weighted by how well
they and their faces fit), the colours of the two regions and, if given, another method's matte,
trusted as far as it agrees with the rest. GrabCut then cuts along the edges.
"""

from functools import lru_cache
from itertools import product

import cv2
import numpy as np

VERSION = 1  # raise it when the same photo would give another matte
SIDE = 128  # longest side of the picture that GrabCut sees
COLOURS = 12
STEPS = 4  # of expectation-maximisation
CUTS = 1  # GrabCut iterations
SURE = 0.05  # pixels likelier or less likely than this to change sides are fixed before the cut
FIT = 20  # independent observations that all pixels together count for when a silhouette is chosen
FACE = 5  # weight of the correlation of skin and face, against the log prior of a silhouette
# Silhouettes: centre and top of the head, its height, half the shoulder width and the width of
# the hair beside the face, the first in picture widths, the next two in picture heights, the
# others in head heights. A portrait is expected to be centred, its head half as high as the photo.
CENTRES = (0.26, 0.38, 0.5, 0.62, 0.74)
TOPS = (-0.04, 0.05, 0.14, 0.23)
HEADS = (0.35, 0.45, 0.55, 0.68)
SHOULDERS = (0.75, 1.05)
HAIR = (0.0, 0.15)


def grabcut(photo, matte=None):
    """The matte of one photo: uint8 (H, W), 255 where the person is.

    photo: uint8 (H, W, 3), RGB. matte: uint8 (H, W) of another method to start from: what it surely
    found is kept. Deterministic. GrabCut: Rother, Kolmogorov and Blake, SIGGRAPH 2004.
    """
    height, width = photo.shape[:2]
    scale = SIDE / max(height, width)
    size = tuple(max(16, round(side * scale)) for side in (width, height))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    half = (size[0] // 2, size[1] // 2)
    tiny = cv2.resize(small, half, interpolation=cv2.INTER_AREA)
    hint = None
    if matte is not None:
        hint = cv2.resize(matte, half, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    chance = person_probability(tiny, hint)
    if hint is not None:
        chance[hint > 0.5] = 1
    chance = cv2.resize(chance, size, interpolation=cv2.INTER_LINEAR)
    person = cv2.GaussianBlur(cut(small, chance), (0, 0), 1)
    person = cv2.resize(person, (width, height), interpolation=cv2.INTER_CUBIC)
    person = np.rint(np.clip(person, 0, 1) * 255).astype(np.uint8)
    return person if matte is None else np.maximum(person, matte)


def cut(small, chance):
    """GrabCut from probabilities (H, W): the largest connected part, float32 0 or 1 (H, W)."""
    labels = np.where(chance > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[chance < SURE] = cv2.GC_BGD
    labels[chance > 1 - SURE] = cv2.GC_FGD
    foreground = labels % 2 == 1
    if foreground.all() or not foreground.any():  # GrabCut needs pixels of both kinds
        return foreground.astype(np.float32)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, labels, None, *models, CUTS, cv2.GC_INIT_WITH_MASK)
    person = (labels % 2).astype(np.uint8)  # GC_FGD is 1 and GC_PR_FGD 3
    count, parts, stats, _ = cv2.connectedComponentsWithStats(person)
    if count > 2:
        person = parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
    return person.astype(np.float32)


def person_probability(tiny, hint=None):
    """float32 (H, W) chance of the person in a small RGB photo; hint: float32 (H, W), a matte."""
    shape = tiny.shape[:2]
    bank, weight, odds, floor, faces = silhouettes(*shape)
    weight = weight + FACE * (faces @ standardised(skin(tiny)))
    colours = colour_clusters(tiny)
    person = sigmoid(logit(softmax(weight) @ bank) + hint_odds(hint))
    for _ in range(STEPS):
        fit = (odds @ person + floor) / len(person)
        prior = softmax(weight + FIT * fit) @ bank
        colour = colour_odds(colours, person).reshape(shape)
        colour = cv2.GaussianBlur(colour, (0, 0), 1).ravel()
        person = sigmoid(logit(prior) + colour + hint_odds(hint, person))
    return person.reshape(shape)


def colour_clusters(tiny):
    """The cluster, 0 to COLOURS - 1, of each pixel of a small RGB photo: int32 (H * W).

    By colour and local contrast: the background of a portrait is often out of focus.
    """
    lab = cv2.cvtColor(tiny, cv2.COLOR_RGB2LAB).astype(np.float32)
    mean = cv2.blur(lab[..., 0], (5, 5))
    variance = cv2.blur(lab[..., 0] ** 2, (5, 5)) - mean**2
    contrast = np.log1p(np.sqrt(np.maximum(variance, 0)))
    features = np.dstack((lab, contrast)).reshape(-1, 4)
    features *= np.float32((0.7, 1.2, 1.2, 12))  # light varies more within a person than hue
    cv2.setRNGSeed(1)
    stop = (cv2.TERM_CRITERIA_MAX_ITER, 6, 0)
    return cv2.kmeans(features, COLOURS, None, stop, 1, cv2.KMEANS_PP_CENTERS)[1].ravel()


def skin(tiny):
    """How much each pixel of a small RGB photo has the hue of skin: float32 (H * W) in 0..1.

    The box of Chai and Ngan (IEEE TCSVT 1999), Cr 133..173 and Cb 77..127, as a soft bump.
    """
    _, red, blue = cv2.split(cv2.cvtColor(tiny, cv2.COLOR_RGB2YCrCb).astype(np.float32))
    return np.exp(-(((red - 153) / 14) ** 2 + ((blue - 102) / 15) ** 2) / 2).ravel()


def standardised(values):
    """Values of mean 0 and, where they vary at all, length 1."""
    values = values - values.mean(-1, keepdims=True)
    spread = values.std(-1, keepdims=True) + 0.05
    return values / (spread * np.sqrt(values.shape[-1]))


def colour_odds(colours, person):
    """log P(colour | person) / P(colour | background) a pixel, from smoothed counts, within 3."""
    inside = np.bincount(colours, person, COLOURS)
    outside = np.bincount(colours, 1 - person, COLOURS)
    inside = inside / inside.sum() + 8 / len(colours)
    outside = outside / outside.sum() + 8 / len(colours)
    return np.log(inside / outside).clip(-3, 3).astype(np.float32)[colours]


def hint_odds(hint, person=None):
    """log P(hint | person) / P(hint | background) a pixel of a matte; 0 without one.

    How often it errs is estimated along with the rest from the probabilities `person`, as STAPLE
    does (Warfield, Zou and Wells, IEEE TMI 2004).
    """
    if hint is None:
        return 0.0
    hint, miss, false_alarm = hint.ravel(), 0.4, 0.05
    if person is not None:
        miss = np.clip(np.average(1 - hint, weights=person), 0.02, 0.8)
        false_alarm = np.clip(np.average(hint, weights=1 - person), 0.02, 0.15)
    found = np.log((1 - miss) / false_alarm)
    unfound = np.log(miss / (1 - false_alarm))
    return (hint * found + (1 - hint) * unfound).astype(np.float32)


@lru_cache(maxsize=8)
def silhouettes(height, width):
    """Head-and-shoulders silhouettes for pictures of one size.

    Returns bank: float32 (K, H * W), the probability of the person under each silhouette; weight:
    float32 (K), its log prior; odds and floor: log-likelihoods, so that odds @ person + floor is
    the expected log-likelihood of `person` under each silhouette; faces: float32 (K, H * W),
    where its face is, standardised.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    bank, weight, faces = [], [], []
    for centre, top, head, shoulder, hair in product(CENTRES, TOPS, HEADS, SHOULDERS, HAIR):
        x_off = np.abs(x - centre * width) / height
        bank.append(silhouette(x_off, y / height, top, head, shoulder, hair).ravel())
        radius = np.hypot(x_off / (0.3 * head), (y / height - top - 0.6 * head) / (0.38 * head))
        faces.append(sigmoid((1 - radius) / 0.15).ravel())
        far = ((centre - 0.5) / 0.15, (top - 0.1) / 0.1, (head - 0.5) / 0.12)
        weight.append(-sum(value**2 for value in far) / 2)
    bank = np.array(bank, np.float32)
    sure = bank.clip(0.02, 0.98)
    faces = standardised(np.array(faces, np.float32))
    return bank, np.array(weight, np.float32), logit(sure), np.log(1 - sure).sum(1), faces


def silhouette(x_off, y, top, head, shoulder, hair):
    """Probabilities of one silhouette at distances x_off from its axis and heights y."""
    half_width = (0.37 + hair) * head  # a head is about three quarters as wide as high
    half_height = head / 2
    radius = np.hypot(x_off / half_width, (y - top - half_height) / half_height)
    inside_head = (1 - radius) * half_width
    neck = 0.27 + hair
    down = (y - (top + 0.95 * head)) / (0.5 * head)  # 0 at the chin, 1 where the arms begin
    slope = np.sin(np.pi / 2 * down.clip(0, 1)) ** 1.3
    inside_body = head * (neck + (shoulder - neck) * slope) - x_off
    inside = np.where(down < -0.6, inside_head, np.maximum(inside_head, inside_body))
    return sigmoid(inside / (0.08 * head))


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))


def logit(p):
    p = np.clip(p, 1e-3, 1 - 1e-3)
    return np.log(p / (1 - p))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()
