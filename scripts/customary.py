"""The customary training loop, as most teams write it: what scripts/benchmark.py compares with.

A Dataset opens a photo with PIL, resizes and augments it; a DataLoader with workers does so again
in each epoch; the loss is read with .item() at each step; all in fp32. The augmentation is that of
--augmentation light. People are split, not photos, and the best model is kept.

    python scripts/customary.py --data_dir data/train --model_dir runs/customary
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from sklearn.metrics import f1_score
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

MASKS = {"incorrect_mask": 1, "normal": 2}  # the other photos of a person are masked
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Photos(Dataset):
    """(photo, class 0..17) of the people of a table."""

    def __init__(self, data_dir, table, transform):
        self.transform, self.items = transform, []
        for row in table.itertuples():
            group = 0 if row.age < 30 else 1 if row.age < 60 else 2
            for path in sorted(Path(data_dir, "images", row.path).glob("[!.]*")):
                label = MASKS.get(path.stem, 0) * 6 + (row.gender == "female") * 3 + group
                self.items.append((path, label))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        path, label = self.items[index]
        return self.transform(Image.open(path).convert("RGB")), label


def loaders(data_dir, size, batch_size, workers, seed=42):
    """(training, validation) DataLoader; a fifth of the people validate."""
    table = pd.read_csv(Path(data_dir, "train.csv"))
    held_out = np.random.default_rng(seed).permutation(len(table)) < len(table) // 5
    prepare = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    augment = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomAffine(10, (0.06, 0.06), (0.9, 1.1)),
        transforms.ColorJitter(0.15, 0.15, 0.15),
    ]
    resize = transforms.Resize(size)
    train = Photos(data_dir, table[~held_out], transforms.Compose([resize, *augment, *prepare]))
    valid = Photos(data_dir, table[held_out], transforms.Compose([resize, *prepare]))
    return (
        DataLoader(train, batch_size, shuffle=True, num_workers=workers, drop_last=True),
        DataLoader(valid, batch_size, num_workers=workers),
    )


def build(name, device):
    """(model, criterion, optimizer)."""
    model = timm.create_model(name, num_classes=18).to(device)
    return model, nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters(), lr=1e-3)


def train_epoch(model, criterion, optimizer, loader, device):
    """Mean loss of an epoch."""
    model.train()
    total = 0.0
    for photos, labels in loader:
        photos, labels = photos.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = criterion(model(photos), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / max(len(loader), 1)


@torch.no_grad()
def validate(model, loader, device):
    """Macro F1 of the validation photos."""
    model.eval()
    truth, found = [], []
    for photos, labels in loader:
        found += model(photos.to(device)).argmax(1).tolist()
        truth += labels.tolist()
    return f1_score(truth, found, labels=range(18), average="macro", zero_division=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", default="data/train")
    parser.add_argument("--model_dir", default="runs/customary")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--resize", type=int, nargs=2, default=(128, 96))
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, valid = loaders(args.data_dir, args.resize, args.batch_size, args.workers)
    parts, best = build(args.model, device), -1.0
    for epoch in range(args.epochs):
        loss = train_epoch(*parts, train, device)
        score = validate(parts[0], valid, device)
        print(f"epoch {epoch + 1}: loss {loss:.3f}, macro F1 {score:.3f}")
        if score > best:
            best = score
            Path(args.model_dir).mkdir(parents=True, exist_ok=True)
            torch.save(parts[0].state_dict(), Path(args.model_dir, "best.pth"))


if __name__ == "__main__":
    main()
