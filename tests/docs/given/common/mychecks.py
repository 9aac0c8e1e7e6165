def too_short(answer):
    return "it is too short" if len(str(answer)) < 2 else None
