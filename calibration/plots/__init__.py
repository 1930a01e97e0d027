"""The pictures of `joulegate plot` and `joulegate report`; one family a file, docs/pictures.md.

Read in this order: `material` (what is drawn), `choices` (who wins where), `style` (how it looks),
then any picture; `gallery` lists them all and `command` writes the files.
"""
