"""The replay benchmark: scripted events told by many posts, questions with gold answers, and a scorer of its own.

    python -m bench.replay --posts 100000 --questions 1000 --seeds 1001 1002 1003

Everything follows from a seed. Seeds below 1000 have the wordings that answering was developed with ("dev", from 300 on
"dev-b", from 600 on "dev-c"); from 1000 on another wording, other names and two more kinds of events ("unseen").
"""
