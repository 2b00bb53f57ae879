"""The customary training loop, as most teams write it: what scripts/benchmark.py compares with.

A Dataset opens a photo with PIL, resizes and augments it; a DataLoader with workers does so again
in each epoch; the loss is read with .item() at each step; all in fp32. The augmentation is that of
--augmentation light; people are split, not photos.

    python scripts/customary.py DATA_DIR OUT.pth EPOCHS MODEL DEVICE HEIGHT WIDTH BATCH_SIZE
"""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from sklearn.metrics import f1_score
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

MASKS = {"incorrect_mask": 1, "normal": 2}  # the other photos of a person are masked


class Photos(Dataset):
    """(photo, class 0..17) of the people of a table."""

    def __init__(self, data_dir, table, *transform):
        self.transform, self.items = transforms.Compose(transform), []
        for row in table.itertuples():
            group = (row.age >= 30) + (row.age >= 60)
            for path in sorted(Path(data_dir, "images", row.path).glob("[!.]*")):
                label = MASKS.get(path.stem, 0) * 6 + (row.gender == "female") * 3 + group
                self.items.append((path, label))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        path, label = self.items[index]
        return self.transform(Image.open(path).convert("RGB")), label


def prepare(data_dir, name, device, height, width, batch_size):
    """(model, optimizer, training and validation DataLoader); a fifth of the people validate."""
    table, workers = pd.read_csv(Path(data_dir, "train.csv")), os.cpu_count()
    held_out = np.random.default_rng(42).permutation(len(table)) < len(table) // 5
    augment = [transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.15, 0.15, 0.15)]
    augment += [transforms.RandomAffine(10, (0.06, 0.06), (0.9, 1.1))]
    last = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    resize, *usual = transforms.Resize((height, width)), transforms.ToTensor(), last
    train = Photos(data_dir, table[~held_out], resize, *augment, *usual)
    train = DataLoader(train, batch_size, shuffle=True, num_workers=workers, drop_last=True)
    valid = Photos(data_dir, table[held_out], resize, *usual)
    valid = DataLoader(valid, batch_size, num_workers=workers)
    model = timm.create_model(name, num_classes=18).to(device)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3), train, valid


def train_epoch(model, optimizer, loader, device):
    """Mean loss of an epoch."""
    model.train()
    losses = []
    for photos, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(photos.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.mean(losses)


@torch.no_grad()
def validate(model, loader, device):
    """Macro F1 of the validation photos."""
    model.eval()
    pairs = [(labels, model(photos.to(device)).argmax(1).cpu()) for photos, labels in loader]
    truth, found = map(torch.cat, zip(*pairs, strict=True))
    return f1_score(truth, found, labels=range(18), average="macro", zero_division=0)


def main(data_dir, out, epochs, name, device, *numbers):
    model, optimizer, train, valid = prepare(data_dir, name, device, *map(int, numbers))
    for _ in range(int(epochs)):
        print(f"loss {train_epoch(model, optimizer, train, device):.3f}")
    print(f"macro F1 {validate(model, valid, device):.3f}")
    torch.save(model.state_dict(), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
