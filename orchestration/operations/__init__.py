"""Operations: what is done to a workspace over its life. Take-down, health, alerts."""
