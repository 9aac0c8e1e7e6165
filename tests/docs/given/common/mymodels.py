from pydantic import BaseModel


class Order(BaseModel):
    customer: str
    quantity: int
